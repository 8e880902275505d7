"""Pods of the rendered chart as containers: the same arguments, variables, files, rights and names, and no cluster.

What a kubelet does that matters to a node is done here by hand: init containers first, variables filled in, secrets and
configuration as read-only files of the pod's group, volumes that belong to root and that group.
"""

from __future__ import annotations

import http.client
import os
import re
from pathlib import Path
from typing import Any, Final

import docker
from docker_engine import UID, Image, labels

__all__ = ("Cluster", "Pod")

REFERENCE: Final = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
PROBE_S: Final = 10
INIT_S: Final = 120


class Cluster:
    """What pods share: rendered objects, secrets, a network, a folder for their volumes."""

    def __init__(
        self,
        client: docker.DockerClient,
        objects: dict[tuple[str, str], dict[str, Any]],
        secrets: dict[str, dict[str, str]],
        *,
        image: Image,
        network: str,
        folder: Path,
    ) -> None:
        self.client = client
        self.objects = objects
        self.secrets = secrets
        self.image = image
        self.network = network
        self.folder = folder

    def service_names(self, pod_labels: dict[str, str]) -> list[str]:
        """Services that lead to a pod with these labels."""
        return [
            name
            for (kind, name), one in self.objects.items()
            if kind == "Service" and one["spec"]["selector"].items() <= pod_labels.items()
        ]


class Pod:
    """One pod: `start` runs its init containers and then its container; a pod made again keeps its claims."""

    def __init__(
        self, cluster: Cluster, name: str, spec: dict[str, Any], pod_labels: dict[str, str], service: str = ""
    ) -> None:
        self.cluster = cluster
        self.name = name
        self.spec = spec
        self.aliases = [name, *cluster.service_names(pod_labels)]
        if service:
            self.aliases.append(f"{name}.{service}")
        self._containers: list[Any] = []

    @classmethod
    def of(cls, cluster: Cluster, kind: str, owner: str, suffix: str) -> Pod:
        """A pod of a StatefulSet or Deployment."""
        spec = cluster.objects[kind, owner]["spec"]
        template = spec["template"]
        service = spec.get("serviceName", "")
        return cls(cluster, f"{owner}-{suffix}", template["spec"], template["metadata"]["labels"], service)

    def start(self) -> None:
        """Run it. Init containers have to end with 0."""
        for part in self.spec.get("initContainers", []):
            code, text = self.run(part)
            assert code == 0, f"{self.name}/{part['name']}: {text}"
        self._containers.append(self._make(self.spec["containers"][0], with_name=True))

    def run(self, part: dict[str, Any]) -> tuple[int, str]:
        """Run one of its containers to its end: exit code and what it printed."""
        container = self._make(part, with_name=False)
        try:
            code = int(container.wait(timeout=INIT_S)["StatusCode"])
            return code, container.logs().decode(errors="replace")
        finally:
            container.remove(force=True)

    @property
    def container(self) -> Any:
        """The container that runs the node."""
        return self._containers[-1]

    def _make(self, part: dict[str, Any], *, with_name: bool) -> Any:
        security, pod_security = part["securityContext"], self.spec["securityContext"]
        options: list[str] = []
        if security["allowPrivilegeEscalation"] is False:
            options.append("no-new-privileges:true")
        tmpfs = {
            mount["mountPath"]: "mode=1777"
            for mount in part.get("volumeMounts", [])
            if mount["name"] == "tmp"
        }
        # The stubs of the low-level client know plain dictionaries where the engine takes structures.
        api: Any = self.cluster.client.api
        created = api.create_container(
            self._image(part["image"]),
            command=[self._filled(text, part) for text in part.get("args", [])],
            entrypoint=part.get("command"),
            environment=self.environment(part),
            user=f"{pod_security['runAsUser']}:{pod_security['runAsGroup']}",
            hostname=self.name if with_name else None,
            labels=labels(),
            networking_config=api.create_networking_config(
                {self.cluster.network: api.create_endpoint_config(aliases=self.aliases if with_name else [])}
            ),
            host_config=api.create_host_config(
                binds=self._binds(part),
                tmpfs=tmpfs,
                read_only=security["readOnlyRootFilesystem"],
                cap_drop=security["capabilities"]["drop"],
                security_opt=options,
                mem_limit=part["resources"]["limits"]["memory"].removesuffix("i").lower(),
                group_add=[str(pod_security["fsGroup"])],
            ),
        )
        container = self.cluster.client.containers.get(created["Id"])
        container.start()
        return container

    def _image(self, rendered: str) -> str:
        assert rendered == self.cluster.image.name, rendered
        return rendered

    def environment(self, part: dict[str, Any]) -> dict[str, str]:
        """The variables, filled in."""
        found: dict[str, str] = dict(self.cluster.image.environment)
        for one in part.get("env", []):
            source = one.get("valueFrom", {})
            if "fieldRef" in source:
                assert source["fieldRef"]["fieldPath"] == "metadata.name"
                found[one["name"]] = self.name
            elif "secretKeyRef" in source:
                reference = source["secretKeyRef"]
                found[one["name"]] = self.cluster.secrets[reference["name"]][reference["key"]]
            else:
                found[one["name"]] = REFERENCE.sub(lambda m: found[m[1]], one.get("value", ""))
        return found

    def _filled(self, text: str, part: dict[str, Any]) -> str:
        environment = self.environment(part)
        return REFERENCE.sub(lambda match: environment[match[1]], text)

    def _binds(self, part: dict[str, Any]) -> dict[str, dict[str, str]]:
        binds = {path: {"bind": path, "mode": "ro"} for path in self.cluster.image.mounts}
        for mount in part.get("volumeMounts", []):
            if mount["name"] == "tmp":
                continue
            folder = self._volume(mount["name"])
            source = folder / mount["subPath"] if "subPath" in mount else folder
            mode = "ro" if mount.get("readOnly") else "rw"
            binds[str(source)] = {"bind": mount["mountPath"], "mode": mode}
        return binds

    def _volume(self, name: str) -> Path:
        """The folder behind a volume, made as a kubelet makes it: of root and the pod's group."""
        folder = self.cluster.folder / self.name / name
        if folder.exists():
            return folder
        folder.mkdir(parents=True)
        source: dict[str, Any] = next(
            (one for one in self.spec.get("volumes", []) if one["name"] == name), {"claim": {}}
        )
        files: dict[str, str] = {}
        if "secret" in source:
            files = self.cluster.secrets[source["secret"]["secretName"]]
        elif "configMap" in source:
            files = self.cluster.objects["ConfigMap", source["configMap"]["name"]]["data"]
        for file, text in files.items():
            (folder / file).write_text(text)
            self._own(folder / file, 0o440)
        self._own(folder, 0o550 if files else 0o2770)
        return folder

    def _own(self, path: Path, mode: int) -> None:
        if os.geteuid() == 0:
            os.chown(path, 0, UID)
            path.chmod(mode)
        else:
            path.chmod(mode | (0o005 if path.is_dir() else 0o004) | (0o002 if mode & 0o200 else 0))

    def probe(self, kind: str) -> int:
        """The status of a probe as a kubelet gets it; 0 without an answer."""
        part = self.spec["containers"][0]
        (port,) = (
            one["containerPort"] for one in part["ports"] if one["name"] == part[kind]["httpGet"]["port"]
        )
        self.container.reload()
        address = self.container.attrs["NetworkSettings"]["Networks"][self.cluster.network]["IPAddress"]
        connection = http.client.HTTPConnection(address, port, timeout=PROBE_S)
        try:
            connection.request("GET", part[kind]["httpGet"]["path"])
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    def kill(self) -> None:
        """End it as a node's failure does, and take the container away: a pod made again is a new container."""
        self.container.kill()
        self.container.remove(force=True)
        self._containers.pop()

    def end(self) -> int:
        """End it in order within its grace period; the exit code."""
        self.container.stop(timeout=self.spec["terminationGracePeriodSeconds"])
        return int(self.container.wait()["StatusCode"])

    def remove(self) -> None:
        """Take everything away."""
        for container in self._containers:
            container.remove(force=True, v=True)
        self._containers.clear()

    def text(self) -> str:
        """What its node has printed."""
        return str(self.container.logs().decode(errors="replace"))
