"""Whether a gateway may route by its table: never once the manager has let go of what that table names."""

from hypothesis import given
from hypothesis import strategies as st

from runtime.core.swap.policy.limits import ACKNOWLEDGE_TIMEOUT
from runtime.core.swap.routes import TableStamp
from runtime.core.swap.standing import BEHIND_SECONDS, Moment, Standing

SILENCE = 10.0


def stamp(version, epoch=1):
    return TableStamp(epoch, version)


def at(now, wall=None):
    return Moment(now, now if wall is None else wall)


# A gateway that was never answered may not route, and one that was may for as long as the silence lasts.
def test_silence():
    assert Standing(SILENCE).fault(at(0.0))
    heard = Standing(SILENCE).answered(stamp(3), stamp(3), at(5.0), at(6.0))
    assert not heard.fault(at(15.0))
    assert "out of date" in heard.fault(at(15.1))
    assert "out of date" in heard.fault(at(6.0, wall=20.0))  # the machine was suspended


# One that knows of a newer table may go on by its own for less than the manager waits for it.
def test_behind():
    assert BEHIND_SECONDS < ACKNOWLEDGE_TIMEOUT
    behind = (
        Standing(SILENCE)
        .answered(stamp(3), stamp(3), at(0.0), at(0.0))
        .answered(stamp(4), stamp(3), at(1.0), at(1.0))
    )
    assert not behind.fault(at(5.9))
    assert "engines" in behind.answered(stamp(4), stamp(3), at(6.0), at(6.0)).fault(at(6.1))
    assert not behind.installed(stamp(4), at(6.0)).fault(at(6.1))


# One that installs a table which is outdated by then is as far behind as before: it takes no requests.
def test_an_outdated_table_is_installed():
    slow = Standing(SILENCE).answered(stamp(1), stamp(1), at(0.0), at(0.0))
    slow = slow.answered(stamp(2), stamp(1), at(1.0), at(1.0)).answered(stamp(3), stamp(1), at(2.0), at(2.0))
    assert "engines" in slow.installed(stamp(2), at(1.0)).fault(at(6.5))
    assert not slow.installed(stamp(3), at(6.0)).fault(at(6.5))


# While there is no manager it goes on, unless it was out of date before it knew that.
def test_alone():
    heard = Standing(SILENCE).answered(stamp(3), stamp(3), at(0.0), at(0.0))
    assert not heard.alone(at(9.0), at(9.5)).fault(at(18.0))
    assert heard.alone(at(11.0), at(11.0)).fault(at(11.0))


class Pair:
    """A gateway and the manager, each with a clock of its own that shows what time it is for both."""

    def __init__(self):
        self.now, self.heard, self.newest, self.version = 0.0, 0.0, 1, 1
        self.kept = 1
        """The oldest table whose engines the manager still keeps for this gateway."""
        self.standing = Standing(SILENCE).answered(stamp(1), stamp(1), at(0.0), at(0.0))

    def wait(self, seconds):
        """Let time pass; a manager that has not heard the gateway for so long takes it as gone."""
        self.now += seconds
        if self.now - self.heard > SILENCE:
            self.kept = self.newest

    def publish(self):
        self.newest += 1
        if self.now - self.heard > SILENCE:
            self.kept = self.newest

    def report(self, there, back, poll):
        """Ask; the question takes ``there`` seconds and the answer ``back``: either end may stand still."""
        asked = at(self.now)
        self.wait(there)
        self.heard, newest = self.now, self.newest
        self.wait(back)
        self.standing = self.standing.answered(stamp(newest), stamp(self.version), asked, at(self.now))
        if poll and newest > self.version:
            self.standing, self.version = self.standing.installed(stamp(newest), asked), newest

    def alone(self, back):
        asked = at(self.now)
        self.heard = max(self.heard, self.now)  # the next manager hears everybody from when it comes
        self.wait(back)
        self.standing = self.standing.alone(asked, at(self.now))

    def routes(self):
        return not self.standing.fault(at(self.now))


SECONDS = st.sampled_from([0.0, 0.1, 1.0, 4.0, 6.0, 9.0, 11.0, 30.0])

STEPS = st.one_of(
    st.tuples(st.just("wait"), SECONDS),
    st.tuples(st.just("publish")),
    st.tuples(st.just("report"), SECONDS, SECONDS, st.booleans()),
    st.tuples(st.just("alone"), SECONDS),
)


# Whatever stands still or is late, a gateway never routes by a table of which the manager keeps no engines.
@given(steps=st.lists(STEPS, max_size=30))
def test_never_by_what_was_let_go_of(steps):
    pair = Pair()
    for name, *arguments in steps:
        getattr(pair, name)(*arguments)
        assert pair.version >= pair.kept or not pair.routes(), (name, arguments)
