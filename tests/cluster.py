"""A local Ray cluster with Interlock on it, for the tests that need one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from benchmarks.parts.local_cluster import LocalCluster, free_port, interlock_application
from runtime.core.swap.installation import engine_in_name
from runtime.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
INTERLOCK = Path(sys.executable).parent / "interlock"


class Deployed:
    """One Interlock application on one cluster: deploys model sets and asks what became of them."""

    def __init__(self, cluster: LocalCluster, gateways: int, **settings: Any):
        self.cluster = cluster
        self.gateways = gateways
        self.settings = settings
        self.port = free_port()
        self.http = httpx.Client(base_url=self.url, timeout=60.0, trust_env=False)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def config(self, model_set):
        """A Serve config; two of them differ in the model set alone."""
        return {
            "http_options": {"host": "127.0.0.1", "port": self.port},
            "applications": [{**interlock_application(str(model_set), self.gateways), "args": self.settings}],
        }

    def deploy(self, model_set):
        """Do what `serve deploy` does, by the same REST call, without a process of its own."""
        self.cluster.put(self.config(model_set))

    def deploy_by_command(self, model_set):
        """Run `serve deploy` itself; return the config file."""
        path = self.cluster.folder / "config.yaml"
        path.write_text(yaml.safe_dump(self.config(model_set)))
        self.cluster.deploy(path)
        return path

    def run(self, *arguments, timeout=300):
        """Run the `interlock` command against this application."""
        return subprocess.run(
            [str(INTERLOCK), *arguments, "--address", self.url],
            env=self.cluster.env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def deploy_and_wait(self, model_set, timeout=240):
        """Deploy and wait; return the finished `interlock wait`."""
        self.deploy(model_set)
        return self.run("wait", "--model-set", str(model_set), "--timeout", str(timeout))

    def status(self):
        return json.loads(self.run("status", "--json").stdout)

    def swap_to(self, model_set, seconds=60):
        """Deploy, return the first status in which the model set is live everywhere."""
        self.deploy(model_set)
        # Not more often: each question costs CPU that a slow machine needs for the swap.
        return self.until(lambda status: _live_everywhere(status, str(model_set)), seconds, every=0.25)

    def until(self, condition, seconds=60, every=0.05):
        """Return the first status for which `condition` holds; it asks every `every` seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            seen = self._ask_status()
            if isinstance(seen, dict) and condition(seen):
                return seen
            time.sleep(every)
        raise AssertionError(f"not so within {seconds} s; the last status was {seen}")

    def until_ready(self, seconds):
        """Return once `/readyz` says yes."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with suppress(httpx.TransportError):
                if self.http.get("/readyz").is_success:
                    return
            time.sleep(0.02)
        raise AssertionError(f"not ready within {seconds} s")

    def _ask_status(self):
        """Return the status, or why there is none: the manager or a gateway may just be away."""
        try:
            answer = self.http.get("/admin/v1/status")
        except httpx.TransportError as error:
            return repr(error)
        return answer.json() if answer.is_success else answer.text

    def application(self, digest):
        """Return the name of an engine's application."""
        return f"engine-{self.status()['installation']}-{digest[:12]}"

    def metered(self):
        """Return the tokens that the gateways have metered, all of those that clients know of by now."""
        # What was on its way just now may be older than the last answer; what a later heartbeat tells is not.
        time.sleep(2 * self.settings.get("heartbeat_s", Settings().heartbeat_s))
        return sum(self.status()["metered"].values())

    def replicas(self, app, deployment):
        """Return the replicas' processes, also of those that are still starting."""
        return self._titled(f"ray::ServeReplica:{app}:{deployment}")

    def controller(self):
        """Return Serve's controller."""
        return self._titled("ray::ServeController")[0]

    def _titled(self, title):
        """Return the cluster's processes that have given themselves this title."""
        found = []
        for process in self.cluster.processes():
            with suppress(psutil.NoSuchProcess):
                if "".join(process.cmdline()).startswith(title):
                    found.append(process)
        return found

    def engine_apps(self):
        """Return the shortened digests of the engine applications that Serve has."""
        told = self.cluster.api("GET", "/api/serve/applications/").json()["applications"]
        return {engine_in_name(name) for name in told} - {""}

    def chat(self, **changes):
        body = {"model": "support-agent", "messages": [{"role": "user", "content": "my bill"}], **changes}
        return self.http.post("/v1/chat/completions", json=body)

    def close(self):
        self.http.close()


@contextmanager
def driver_of(cluster):
    """Make this process a driver of the cluster, to hold handles of engines."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
            environment.setenv(name, cluster.env[name])
        # Imported only now: Ray's core reads the authentication settings once, when it is imported.
        import ray

        ray.init(address=cluster.env["RAY_ADDRESS"], log_to_driver=False)
        yield
        ray.shutdown()


def _live_everywhere(status, source):
    wanted = status["wanted"]
    if wanted is None or wanted["source"] != source:
        return False
    assert wanted["outcome"] != "failed", wanted["reason"]
    return wanted["outcome"] == "live" and release_of(status, wanted["release"])["acknowledged"] is not None


def release_of(status, number):
    return next(release for release in status["releases"] if release["number"] == number)
