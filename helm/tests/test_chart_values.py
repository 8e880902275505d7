"""Values that are refused, with words (HH rows), and values that mean something, every one of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from chart_under_test import BASE, CHART, RELEASE, ChartCopy, merged, pods

VOTERS = f"{RELEASE}-meshfold-voters"
DEV = {"dev": {"enabled": True}}


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> ChartCopy:
    """The chart."""
    return ChartCopy(tmp_path_factory.mktemp("chart"))


def refused(chart: ChartCopy, values: dict[str, Any]) -> str:
    """Why these values are refused."""
    with pytest.raises(helm_python.HelmError) as caught:
        chart.render(values)
    return str(caught.value)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("HH1", {"voters": {"replicas": 2}}, "'/voters/replicas': value must be one of 1, 3, 5, 7"),
    ("HH1", {"voters": {"replicas": 4}}, "'/voters/replicas': value must be one of 1, 3, 5, 7"),
    ("HH1", {"voters": {"replicas": 0}}, "'/voters/replicas': value must be one of 1, 3, 5, 7"),
    ("HH1", {"voters": {"replicas": 3}}, "voters.joinTokens.existingSecret: the pods behind the first join"),
    ("HH2", {"voters": {"persistence": {"enabled": False}}}, "voters.persistence.enabled: without a volume"),
    ("HH3", {"broker": {"auth": {"method": "none"}}}, "'/broker/auth/method': value must be one of"),
    ("HH3", {"image": {"tag": "latest"}}, "image.tag: latest is another image tomorrow"),
    ("HH3", {"podSecurityContext": {"runAsUser": 0}}, "'/podSecurityContext/runAsUser': minimum"),
    (
        "HH3",
        {"podSecurityContext": {"runAsNonRoot": False}},
        "'/podSecurityContext/runAsNonRoot': value must be true",
    ),
    ("HH3", {"securityContext": {"runAsUser": 0}}, "'/securityContext/runAsUser': minimum"),
    ("HH3", {"securityContext": {"privileged": True}}, "'/securityContext/privileged': value must be false"),
    (
        "HH3",
        {"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}},
        "'/securityContext/capabilities/add'",
    ),
    (
        "HH3",
        {"securityContext": {"allowPrivilegeEscalation": True}},
        "'/securityContext/allowPrivilegeEscalation': value must be false",
    ),
    (
        "HH3",
        {"extraVolumes": [{"name": "disk", "hostPath": {"path": "/"}}]},
        "extraVolumes: disk is a hostPath",
    ),
    ("HH4", {"broker": {"auth": {"token": "s3cret"}}}, "'/broker/auth': additional properties 'token'"),
    ("HH4", {"mesh": {"root": {"passphrase": "s3cret"}}}, "additional properties 'passphrase' not allowed"),
    ("HH4", {"extraEnv": [{"name": "DB_PASSWORD", "value": "s3cret"}]}, "DB_PASSWORD looks like a secret"),
    ("HH4", {"broker": {"url": "nats://me:s3cret@broker:4222"}}, "broker.url: holds a login"),
    ("HH6", {"voters": {"replicas": "3"}}, "'/voters/replicas': value must be one of"),
    ("HH6", {"health": {"port": "8080"}}, "'/health/port': got string, want integer"),
    ("HH6", {"health": {"port": 80}}, "'/health/port': minimum: got 80, want 1,024"),
    ("HH6", {"voter": {"replicas": 3}}, "additional properties 'voter' not allowed"),
    ("HH6", {"workers": {"autoscale": {}}}, "'/workers': additional properties 'autoscale' not allowed"),
    ("HH6", {"config": {"log_levle": "info"}}, "'/config': additional properties 'log_levle' not allowed"),
    ("HH6", {"config": {"dir": "/elsewhere"}}, "'/config': additional properties 'dir' not allowed"),
    ("HH6", {"networkPolicy": {"enabled": "yes"}}, "'/networkPolicy/enabled': got string, want boolean"),
    ("HH6", {"otel": {"protocol": "http"}}, "'/otel/protocol': value must be one of"),
    ("HH6", {"workers": {"app": "rm -rf"}}, "'/workers/app': 'rm -rf' does not match pattern"),
    ("HH7", {"podDisruptionBudget": {"maxUnavailable": 2}}, "additional properties 'maxUnavailable'"),
    ("HH9", {"mesh": {"name": "my mesh"}}, "'/mesh/name': 'my mesh' does not match pattern"),
    ("HH9", {"mesh": {"name": "plant.one"}}, "'/mesh/name': 'plant.one' does not match pattern"),
    ("HH9", {"mesh": {"name": "Plant"}}, "'/mesh/name': 'Plant' does not match pattern"),
    ("HH9", {"mesh": {"name": "p" * 200}}, "'/mesh/name'"),
    ("other", {"broker": {"url": ""}}, "broker.url: nodes need a NATS server"),
    ("other", {"nats": {"enabled": True}}, "broker.url: names a server while nats.enabled installs another"),
    ("other", {"broker": {"auth": {"existingSecret": ""}}}, "broker.auth.existingSecret: the method token"),
    ("other", {"mesh": {"root": {"existingSecret": ""}}}, "mesh.root.existingSecret: the root key"),
    ("other", {"workers": {"enabled": True}}, "workers.joinToken.existingSecret: workers join by token"),
    ("other", {"broker": {"tls": {"certKey": "tls.crt"}}}, "broker.tls.keyKey: a certificate is of no use"),
    ("other", {"broker": {"url": "http://broker"}}, "'/broker/url': 'http://broker' does not match pattern"),
]


@pytest.mark.parametrize(
    ("values", "says"), [(values, says) for _, values, says in REFUSED], ids=[row for row, _, _ in REFUSED]
)
def test_bad_values_are_refused_by_name(chart: ChartCopy, values: dict[str, Any], says: str) -> None:
    message = refused(chart, values)
    assert says in message
    assert "s3cret" not in message


@pytest.mark.parametrize(
    "values",
    [
        {"broker": {"auth": {"method": "none", "existingSecret": ""}}},
        {"voters": {"persistence": {"enabled": False}}},
        {"image": {"tag": "latest"}},
        {"podSecurityContext": {"runAsNonRoot": False, "runAsUser": 0}},
        {"extraVolumes": [{"name": "disk", "hostPath": {"path": "/"}}]},
    ],
)
def test_hh3_who_says_that_he_tries_things_may(chart: ChartCopy, values: dict[str, Any]) -> None:
    refused(chart, values)
    assert chart.render(merged(DEV, values))


def test_hh7_no_two_voters_share_a_node_and_one_at_a_time_is_evicted(chart: ChartCopy) -> None:
    for strength in ("hard", "soft"):
        objects = chart.render(
            {"voters": {"replicas": 5, "joinTokens": {"existingSecret": "t"}, "antiAffinity": strength}}
        )
        spec = objects["StatefulSet", VOTERS]["spec"]["template"]
        rule = spec["spec"]["affinity"]["podAntiAffinity"]
        if strength == "hard":
            (term,) = rule["requiredDuringSchedulingIgnoredDuringExecution"]
        else:
            (weighted,) = rule["preferredDuringSchedulingIgnoredDuringExecution"]
            term = weighted["podAffinityTerm"]
        assert term["topologyKey"] == "kubernetes.io/hostname"
        assert term["labelSelector"]["matchLabels"].items() <= spec["metadata"]["labels"].items()
        assert objects["PodDisruptionBudget", VOTERS]["spec"]["maxUnavailable"] == 1


def test_hh8_the_network_policy_is_on_by_default_and_lets_in_the_health_port_alone(chart: ChartCopy) -> None:
    policy = chart.render()["NetworkPolicy", f"{RELEASE}-meshfold"]["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    (rule,) = policy["ingress"]
    assert rule["ports"] == [{"port": "http", "protocol": "TCP"}]
    assert rule["from"] == [{"podSelector": {}}]
    off = chart.render({"networkPolicy": {"enabled": False}})
    assert not any(kind == "NetworkPolicy" for kind, _ in off)


#: What has to be set so that a value can mean something.
STAGE: dict[str, Any] = {
    "workers": {"enabled": True, "joinToken": {"existingSecret": "w"}},
    "otel": {"endpoint": "http://c:4318"},
    "metrics": {"serviceMonitor": {"enabled": True}},
    "broker": {"tls": {"existingSecret": "ca", "certKey": "tls.crt", "keyKey": "tls.key"}},
}
#: Another stage for those that mean nothing on that one.
STAGES: dict[str, dict[str, Any]] = {
    "broker.auth.credsKey": {"broker": {"auth": {"method": "creds"}}},
    "broker.auth.nkeyKey": {"broker": {"auth": {"method": "nkey"}}},
    "broker.auth.userKey": {"broker": {"auth": {"method": "user"}}},
    "broker.auth.passwordKey": {"broker": {"auth": {"method": "user"}}},
    "voters.joinTokens.existingSecret": {"voters": {"replicas": 3, "joinTokens": {"existingSecret": "a"}}},
    "voters.replicas": {"voters": {"joinTokens": {"existingSecret": "a"}}},
    "workers.autoscaling.minReplicas": {"workers": {"autoscaling": {"enabled": True}}},
    "workers.autoscaling.maxReplicas": {"workers": {"autoscaling": {"enabled": True}}},
    "workers.autoscaling.targetCPUUtilizationPercentage": {"workers": {"autoscaling": {"enabled": True}}},
    "networkPolicy.egressTo": {"networkPolicy": {"restrictEgress": True}},
    "voters.persistence.enabled": DEV,
    "nats.enabled": {"broker": {"url": ""}},
    "nats.config.merge.authorization": {"broker": {"url": ""}, "nats": {"enabled": True}},
    "nats.container.env.MESHFOLD_BROKER_TOKEN": {"broker": {"url": ""}, "nats": {"enabled": True}},
    # It allows what is refused otherwise, and the notes say so.
    "dev.enabled": {},
}
#: A value that is not the default, where the kind of the default does not give one.
OTHERS: dict[str, Any] = {
    "image.digest": "sha256:" + "b" * 64,
    "image.pullPolicy": "Always",
    "image.pullSecrets": ["pull"],
    "broker.url": "nats://other:4222",
    "broker.auth.method": "creds",
    "voters.replicas": 5,
    "voters.persistence.accessModes": ["ReadWriteOncePod"],
    "voters.persistence.size": "2Gi",
    "voters.antiAffinity": "hard",
    "workers.app": "kiln.control:app",
    "voters.app": "sampler",
    # On, on the stage.
    "workers.enabled": False,
    "metrics.serviceMonitor.enabled": False,
    "config": {"log_level": "debug"},
    "health.port": 9090,
    "otel.endpoint": "http://d:4318",
    "otel.protocol": "grpc",
    "otel.sampler": "always_on",
    "otel.samplerArg": "0.5",
    "metrics.serviceMonitor.interval": "10s",
    "metrics.serviceMonitor.scrapeTimeout": "5s",
    "podSecurityContext": {"runAsUser": 1234},
    "securityContext": {"runAsUser": 1234},
    "nats.config.merge.authorization": {"token": "<< $OTHER >>"},
    "extraEnv": [{"name": "NOTE", "value": "x"}],
    "extraEnvFrom": [{"configMapRef": {"name": "x"}}],
    "extraVolumes": [{"name": "x", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "tmp", "mountPath": "/x"}],
    "extraContainers": [{"name": "x", "image": "y:1"}],
    "extraInitContainers": [{"name": "x", "image": "y:1"}],
    "extraObjects": ["kind: ConfigMap\napiVersion: v1\nmetadata: {name: x}\n"],
    "networkPolicy.ingressFrom": [{"podSelector": {"matchLabels": {"a": "b"}}}],
    "networkPolicy.egressTo": [{"ports": [{"port": 4222, "protocol": "TCP"}]}],
}


def described() -> dict[str, Any]:
    """The default of every value that has a description."""
    import chart_values

    source = (CHART / "values.yaml").read_text()
    return {value.path: value.default for value in chart_values.described(source)}


def other(path: str, default: Any) -> Any:
    """A value unlike the default."""
    if path in OTHERS:
        return OTHERS[path]
    last = path.rpartition(".")[2]
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 1
    if last in ("tolerations",):
        return [{"key": "a", "operator": "Exists"}]
    if isinstance(default, list):
        return ["edge/host/memory"]
    if last == "resources":
        return {"limits": {"memory": "1Gi"}}
    if path.startswith("probes."):
        return {"failureThreshold": 7}
    if isinstance(default, dict):
        return {"a": "b"}
    return "other"


def nested(path: str, value: Any) -> dict[str, Any]:
    """The map that sets one value."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return dict(value)


@pytest.mark.parametrize("path", described())
def test_every_value_that_is_described_changes_what_is_rendered(chart: ChartCopy, path: str) -> None:
    stage = merged(merged(BASE, STAGE), STAGES.get(path, {}))
    changed = merged(stage, nested(path, other(path, described()[path])))
    if path == "nats.enabled":
        stage = merged(stage, {"broker": {"url": "nats://broker:4222"}})
    assert chart.files(changed) != chart.files(stage)


def test_the_schema_knows_every_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())

    def walk(node: Any, part: Any, path: str) -> list[str]:
        part = schema["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        if "properties" not in part or not isinstance(node, dict) or path == ".nats":
            return []
        assert part.get("additionalProperties") is False, path
        found = [f"{path}.{key}" for key in node.keys() ^ part["properties"].keys()]
        return found + [
            line
            for key in node.keys() & part["properties"].keys()
            for line in walk(node[key], part["properties"][key], f"{path}.{key}")
        ]

    loose = (".config.", ".probes.", ".resources.")
    assert [path for path in walk(defaults, schema, "") if not any(part in path for part in loose)] == [
        ".global"
    ]


def test_no_secret_is_mounted_into_a_pod_that_does_not_need_it(chart: ChartCopy) -> None:
    objects = chart.render(merged(STAGE, {"voters": {"replicas": 3, "joinTokens": {"existingSecret": "v"}}}))
    secrets = {
        where[0]: {volume["secret"]["secretName"] for volume in spec.get("volumes", []) if "secret" in volume}
        for where, spec in pods(objects).items()
    }
    assert secrets == {
        "StatefulSet": {"mesh-root", "broker-login", "ca", "v"},
        "Deployment": {"broker-login", "ca", "w"},
        "Pod": set(),
    }


def test_the_written_table_and_schema_are_those_of_the_chart() -> None:
    import chart_values

    assert chart_values.main(["--check"]) == 0


def test_a_value_without_a_description_and_a_stale_table_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import chart_values

    for path in (chart_values.VALUES, chart_values.SCHEMA, chart_values.TABLE):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text((chart_values.ROOT / path).read_text())
    assert chart_values.main(["--check"], tmp_path) == 0
    with (tmp_path / chart_values.VALUES).open("a") as file:
        file.write("bare: {value: 1}\n# -- Told.\ntold: 2\n")
    assert chart_values.main(["--check"], tmp_path) == 1
    said = capsys.readouterr().err
    assert "bare.value has no description" in said
    assert "chart-values.md is not what the chart says" in said
    assert chart_values.main([], tmp_path) == 1
    assert "| `told` | `2` | Told. |" in (tmp_path / chart_values.TABLE).read_text()
