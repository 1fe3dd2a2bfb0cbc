"""Where Ray's connections are encrypted, ours are, too, by the same certificates."""

import asyncio
import datetime as dt
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from runtime.channel import connection
from runtime.channel.client import Channel
from runtime.channel.engine_calls import answering
from runtime.channel.server import ChannelServer
from runtime.errors import EngineLost, EngineUnavailable
from runtime.serve import tls
from runtime.serve.management import desk as manager_desk
from runtime.serve.management.link import ManagerLink
from tests.unit.channel.test_channel import ASK, Replica
from tests.unit.serve.test_manager_link import STATUS, Directory, Manager

pytestmark = pytest.mark.looptime(False)  # noqa: FBT003 - the marker's form; real sockets need real time


def certificate(name, key, by=None, by_key=None):
    issued = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(issued)
        .issuer_name(by.subject if by else issued)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("10.1.2.3"))]), critical=False
        )
    )
    return made.sign(by_key or key, hashes.SHA256())


@pytest.fixture
def encrypted(tmp_path, monkeypatch):
    """Let Ray's connections be encrypted: by certificates of the authority of that name."""
    made = {}

    def encrypt(authority="one"):
        if authority not in made:
            root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
            root = certificate(authority, root_key)
            folder = made[authority] = tmp_path / authority
            folder.mkdir()
            pem = serialization.Encoding.PEM
            plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            (folder / "ca").write_bytes(root.public_bytes(pem))
            (folder / "cert").write_bytes(certificate("node", key, root, root_key).public_bytes(pem))
            (folder / "key").write_bytes(key.private_bytes(pem, *plain))
        monkeypatch.setenv("RAY_USE_TLS", "1")
        for name, file in (("SERVER_CERT", "cert"), ("SERVER_KEY", "key"), ("CA_CERT", "ca")):
            monkeypatch.setenv(f"RAY_TLS_{name}", str(made[authority] / file))

    return encrypt


# Without certificates nothing is encrypted, as nothing of Ray's is.
def test_nothing_is_encrypted(monkeypatch):
    monkeypatch.setenv("RAY_USE_TLS", "0")
    assert tls.listening() is None
    assert tls.calling() is None


# A gateway and a manager that hold certificates of one authority talk as ever, and nobody reads it.
async def test_a_link(encrypted):
    encrypted()
    manager = Manager(status=STATUS.model_copy(update={"secret": "x" * 100_000}))
    server = ChannelServer(manager_desk.answering(manager), "manager", 10)
    address = await server.open("127.0.0.1", tls.listening())
    link = ManagerLink(Directory(address), tls.calling())
    assert (await link.status()).live == 1
    assert link._channel._connection._transport.get_extra_info("cipher") is not None
    await link.close()
    await server.close(0.0)


# Nor does a stream over a channel lose anything.
async def test_a_stream(encrypted):
    encrypted()
    server = ChannelServer(answering(Replica(tokens=200, inter_token="1ms")), "replica", 10)
    address = await server.open("127.0.0.1", tls.listening())
    channel = Channel(address, lambda _: None, tls=tls.calling())
    await channel.open()
    assert sum([len(chunks) async for chunks in channel.generate(ASK)]) == 200
    await channel.close()
    await server.close(0.0)


# Who shows no certificate, or one of another authority, is not served, and is told so in time.
@pytest.mark.parametrize("caller", [None, "another"])
async def test_strangers(encrypted, caller, monkeypatch):
    encrypted()
    server = ChannelServer(answering(replica := Replica()), "replica", 10)
    address = await server.open("127.0.0.1", tls.listening())
    if caller is None:
        monkeypatch.setenv("RAY_USE_TLS", "0")
    else:
        encrypted(caller)
    channel = Channel(address, lambda _: None, tls=tls.calling())
    async with asyncio.timeout(10):
        with pytest.raises(EngineLost):
            await channel.open()
    await channel.close()
    assert replica.calls == 0
    await server.close(0.0)


# Heartbeats go through encryption as well: an end that stands still is let go of.
async def test_heartbeats(encrypted, monkeypatch):
    monkeypatch.setattr(connection, "_BEAT_S", 0.05)
    encrypted()
    server = ChannelServer(manager_desk.answering(Manager(status=STATUS)), "manager", 10, silent_s=0.5)
    address = await server.open("127.0.0.1", tls.listening())
    channel = Channel(address, lambda _: None, silent_s=0.5, tls=tls.calling())
    await channel.open()
    await asyncio.sleep(1.0)
    assert len(server._callers) == 1
    channel._connection._pulse.stop()
    async with asyncio.timeout(5):
        while server._callers:
            await asyncio.sleep(0.01)
    with pytest.raises(EngineUnavailable):
        await channel.ask("status")
    await channel.close()
    await server.close(0.0)
