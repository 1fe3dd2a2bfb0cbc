"""That the vLLM that is installed waits as ``serve.vllm_wait`` takes it to."""

import zmq

from runtime.serve.vllm_wait import spinning_for


# Who has just read would look again at once; who has not for long would not.
def test_installed_vllm_is_one_that_can_nap(tmp_path):
    from vllm.distributed.device_communicators.shm_broadcast import SpinCondition

    with zmq.Context() as context:
        reader = SpinCondition(is_reader=True, context=context, notify_address=f"ipc://{tmp_path}/notify")
        reader.record_read()
        assert spinning_for(reader) is not None
        reader.last_read -= 2 * reader.busy_loop_s
        assert spinning_for(reader) is None
        for socket in (reader.local_notify_socket, reader.write_cancel_socket, reader.read_cancel_socket):
            socket.close(linger=0)
