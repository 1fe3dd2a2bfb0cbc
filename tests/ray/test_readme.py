import re
from pathlib import Path

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


# The README's client example runs as it is written, but for the address.
def test_python_example(interlock, capsys):
    code = re.search(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)[1]
    assert "http://127.0.0.1:8000" in code
    scope = {}
    exec(code.replace("http://127.0.0.1:8000", interlock.url), scope)
    scope["client"].close()
    printed = capsys.readouterr().out
    assert "triage" in printed
    assert "answer" in printed
