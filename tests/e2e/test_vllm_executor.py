"""That the vLLM that is installed runs its worker where ``serve.hosts.vllm.executor`` has it run."""


# A real engine on the CPU is one process beside its replica: its core, which is its worker, too.
def test_the_worker_has_no_process(support):
    names = [process.name() for process in support.cluster.processes()]
    assert any(name.startswith("VLLM::Eng") for name in names), names
    assert not any(name.startswith("VLLM::Wor") for name in names), names
