from tests.pages import CLIENTS, blocks


# The client's example in the API's page runs as it is written, but for the address.
def test_python_example(interlock, capsys):
    (code,) = blocks(CLIENTS, "python")
    assert "http://127.0.0.1:8000" in code
    scope = {}
    exec(code.replace("http://127.0.0.1:8000", interlock.url), scope)
    scope["client"].close()
    printed = capsys.readouterr().out
    assert "triage" in printed
    assert "answer" in printed
