"""What is inside an engine's chunks."""

from runtime.engines.chunks import Choices


def part(index):
    return {"object": "chat.completion.chunk", "choices": [{"index": index}]}


# While a stream of several choices tells of one at a time, the count is that of all; the last says the whole.
def test_tokens_of_all_choices():
    choices = Choices()
    told = [(part(0), 1), (part(1), 1), (part(0), 2), (part(1), 3)]
    assert [choices.total(answer, tokens) for answer, tokens in told] == [1, 2, 3, 5]
    assert choices.total({"object": "chat.completion.chunk", "choices": []}, 5) == 5
    assert choices.total({"object": "chat.completion", "choices": [{"index": 0}]}, 7) == 7
