import asyncio

import pytest
import yaml

from benchmarks.parts.open_loop import LoadGenerator, Plan
from benchmarks.parts.report import is_mixed
from runtime.settings import Settings
from tests.cluster import ROOT, release_of


def _broken_weights(folder):
    """A model whose tokenizer and settings are right and whose weights are not."""
    source = Settings().models_dir / "smollm2-135m-instruct"
    target = folder / "broken-model"
    target.mkdir()
    for path in source.iterdir():
        if path.suffix == ".safetensors":
            (target / path.name).write_bytes(b"not weights")
        else:
            (target / path.name).write_bytes(path.read_bytes())
    return target


# Weights that fail to load fail the candidate; the live release goes on, and what was loaded is freed.
@pytest.mark.timeout(300)
def test_weights_that_fail_to_load(support, tmp_path):
    document = yaml.safe_load((ROOT / "models/support/v1.yaml").read_text())
    loading = document["engines"]["writer"]["llm_config"]["model_loading_config"]
    loading["model_source"] = str(_broken_weights(tmp_path))
    document["chains"]["support-agent"]["steps"][1]["generate"]["prompt"] = "Answer briefly."
    path = tmp_path / "broken.yaml"
    path.write_text(yaml.safe_dump(document))
    before = support.status()
    done = support.deploy_and_wait(path, timeout=240)
    assert done.returncode == 1
    status = support.until(lambda s: len(s["engines"]) == len(before["engines"]), seconds=90)
    assert status["live"] == before["live"]
    assert status["wanted"]["outcome"] == "failed"
    assert status["wanted"]["reason"]
    assert support.chat().status_code == 200


# A swap on real engines under load loses nothing: no failure, no mixed answer, the router reused.
@pytest.mark.timeout(400)
async def test_swap_under_load(support):
    before = support.metered()
    # Even: by chance nothing may come in the five seconds after the switch.
    plan = Plan(
        *(support.url, "support-agent", ["I was charged twice.", "The app crashes."]),
        rate=0.5,
        even=True,
        max_tokens=48,
    )
    load = LoadGenerator(plan)
    offered = asyncio.create_task(load.run())
    status = await asyncio.to_thread(support.swap_to, "models/support/v2.yaml", 300)
    await asyncio.sleep(5)
    load.stop()
    await offered
    assert [record.error for record in load.records if record.error] == []
    assert sum(is_mixed(record, status) for record in load.records) == 0
    assert len({record.release for record in load.records}) == 2
    engines = release_of(status, status["live"])["engines"]
    assert (engines["router"]["reused"], engines["writer"]["reused"]) == (True, False)
    client = sum(record.prompt_tokens + record.completion_tokens for record in load.records)
    assert support.metered() - before == client
