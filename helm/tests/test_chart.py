"""The chart renders what the schemas of Kubernetes know, within the restricted standard, for every set of values."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped] # it ships no types
import pytest
from chart_under_test import BASE, RELEASE, ChartCopy, Objects, merged, pods
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

VOTERS = f"{RELEASE}-meshfold-voters"
WORKERS = f"{RELEASE}-meshfold-workers"
FULL: dict[str, Any] = {
    "voters": {"replicas": 3, "joinTokens": {"existingSecret": "voter-tokens"}, "antiAffinity": "hard"},
    "workers": {
        "enabled": True,
        "read": ["edge/host/memory", "edge/host/cpu"],
        "joinToken": {"existingSecret": "worker-token"},
        "autoscaling": {"enabled": True},
    },
    "broker": {"auth": {"method": "creds"}, "tls": {"existingSecret": "broker-ca"}},
    "metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    "otel": {"endpoint": "http://collector:4318", "headersSecret": "otel"},
    "networkPolicy": {"restrictEgress": True, "egressTo": [{"ports": [{"port": 4222, "protocol": "TCP"}]}]},
    "extraObjects": ["apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}-extra'}\n"],
    "image": {"registry": "registry.example", "digest": "sha256:" + "a" * 64, "pullSecrets": ["pull"]},
}
SETS: dict[str, dict[str, Any]] = {
    "least": {},
    "full": FULL,
    "own broker": {"broker": {"url": ""}, "nats": {"enabled": True}},
    "logins of the mesh": {"broker": {"auth": {"method": "mesh", "existingSecret": ""}}},
    "user and password": {"broker": {"auth": {"method": "user"}}},
    "trying things": {
        "dev": {"enabled": True},
        "broker": {"auth": {"method": "none", "existingSecret": ""}},
        "voters": {"persistence": {"enabled": False}},
        "image": {"tag": "latest"},
    },
}


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> ChartCopy:
    """The chart."""
    return ChartCopy(tmp_path_factory.mktemp("chart"))


def check(objects: Objects) -> None:
    """Hold every object against its kind's schema, and every pod against the restricted standard."""
    for (kind, name), document in objects.items():
        if kind == "ServiceMonitor":
            continue  # a kind of somebody else's
        kubernetes_validate.validate(document, "1.34", strict=True)
        assert len(name) <= 63
    for where, spec in pods(objects).items():
        restricted(spec, str(where))


def restricted(spec: dict[str, Any], where: str) -> None:
    """The restricted Pod Security Standard."""
    pod = spec["securityContext"]
    assert pod["runAsNonRoot"] is True, where
    assert pod["runAsUser"] > 0, where
    assert pod["seccompProfile"]["type"] == "RuntimeDefault", where
    assert spec["automountServiceAccountToken"] is False, where
    assert not any(spec.get(shared) for shared in ("hostNetwork", "hostPID", "hostIPC")), where
    kinds = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"}
    kinds |= {"projected", "secret"}
    assert all(set(volume) - {"name"} <= kinds for volume in spec.get("volumes", [])), where
    for container in (*spec.get("initContainers", []), *spec["containers"]):
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False, where
        assert own["capabilities"] == {"drop": ["ALL"]}, where
        assert own["readOnlyRootFilesystem"] is True, where
        assert not any(port.get("hostPort") for port in container.get("ports", [])), where
        assert container["resources"]["limits"]["memory"], where


def node_pods(objects: Objects) -> list[dict[str, Any]]:
    """Specs of the pods that run nodes."""
    return [spec for (kind, _), spec in pods(objects).items() if kind != "Pod"]


@pytest.mark.parametrize("name", SETS)
def test_it_lints_renders_and_validates(chart: ChartCopy, name: str) -> None:
    assert chart.lint(merged(BASE, SETS[name])) == []
    check(chart.render(SETS[name]))


def test_it_lints_with_nothing_but_its_defaults(chart: ChartCopy) -> None:
    assert chart.lint({}) == []


def test_voters_have_stable_names_from_before_they_are_ready_and_come_up_together(chart: ChartCopy) -> None:
    objects = chart.render(FULL)
    spec = objects["StatefulSet", VOTERS]["spec"]
    assert (spec["replicas"], spec["podManagementPolicy"]) == (3, "Parallel")
    service = objects["Service", spec["serviceName"]]["spec"]
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    labels = spec["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    assert spec["volumeClaimTemplates"][0]["metadata"]["name"] == "state"


def test_the_passphrase_is_mounted_where_the_mesh_is_made_and_nowhere_else(chart: ChartCopy) -> None:
    for where, spec in pods(chart.render(FULL)).items():
        for container in (*spec.get("initContainers", []), *spec["containers"]):
            mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert ("root" in mounts) == (container["name"] == "init"), where


def test_probes_ask_for_start_readiness_and_life_apart(chart: ChartCopy) -> None:
    for spec in node_pods(chart.render(FULL)):
        (node,) = spec["containers"]
        paths = {probe: node[probe]["httpGet"]["path"] for probe in node if probe.endswith("Probe")}
        assert paths == {
            "startupProbe": "/healthz/startup",
            "readinessProbe": "/readyz",
            "livenessProbe": "/livez",
        }
        assert {node[probe]["httpGet"]["port"] for probe in paths} == {"http"}
        assert [port["name"] for port in node["ports"]] == ["http"]


def test_every_selector_finds_the_pods_it_is_for_and_no_others(chart: ChartCopy) -> None:
    objects = chart.render(FULL)
    labels = {
        part: objects[kind, f"{RELEASE}-meshfold-{part}"]["spec"]["template"]["metadata"]["labels"]
        for part, kind in (("voters", "StatefulSet"), ("workers", "Deployment"))
    }
    labels["test"] = objects["Pod", f"{RELEASE}-meshfold-test"]["metadata"]["labels"]

    def found(selector: dict[str, str]) -> set[str]:
        return {part for part, own in labels.items() if selector.items() <= own.items()}

    assert found(objects["PodDisruptionBudget", VOTERS]["spec"]["selector"]["matchLabels"]) == {"voters"}
    assert found(objects["PodDisruptionBudget", WORKERS]["spec"]["selector"]["matchLabels"]) == {"workers"}
    assert found(objects["Service", VOTERS]["spec"]["selector"]) == {"voters"}
    assert found(objects["Service", f"{RELEASE}-meshfold"]["spec"]["selector"]) == {"voters", "workers"}
    policy = objects["NetworkPolicy", f"{RELEASE}-meshfold"]["spec"]
    assert found(policy["podSelector"]["matchLabels"]) == {"voters", "workers"}
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    monitor = objects["ServiceMonitor", f"{RELEASE}-meshfold"]["spec"]
    wanted = monitor["selector"]["matchLabels"].items()
    services = {
        name
        for (kind, name), one in objects.items()
        if kind == "Service" and wanted <= one["metadata"]["labels"].items()
    }
    assert services == {f"{RELEASE}-meshfold"}, "each node is scraped once"
    assert monitor["endpoints"][0]["path"] == "/metrics"


def test_the_test_pod_asks_addresses_that_the_chart_makes(chart: ChartCopy) -> None:
    objects = chart.render(FULL)
    pod = objects["Pod", f"{RELEASE}-meshfold-test"]
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    services = {name: one for (kind, name), one in objects.items() if kind == "Service"}
    for container in pod["spec"]["containers"]:
        host, port = container["args"][-1].partition("=")[2].rsplit(":", 1)
        service = services[host.rpartition(".")[2] or host]
        assert int(port) in {one["port"] for one in service["spec"]["ports"]}


def test_the_configuration_is_toml_and_a_change_of_it_rolls_the_pods(chart: ChartCopy) -> None:
    def at(level: str) -> tuple[Any, str]:
        objects = chart.render({"config": {"log_level": level}})
        text = objects["ConfigMap", f"{RELEASE}-meshfold-config"]["data"]["meshfold.toml"]
        pod = objects["StatefulSet", VOTERS]["spec"]["template"]["metadata"]["annotations"]
        return tomllib.loads(text), pod["checksum/config"]

    (debug, one), (error, other) = at("debug"), at("error")
    assert debug == {"node": {"log_level": "debug", "log_format": "json"}}
    assert error["node"]["log_level"] == "error"
    assert one != other


@pytest.mark.parametrize("name", SETS)
def test_a_node_takes_the_settings_that_are_rendered(chart: ChartCopy, tmp_path: Path, name: str) -> None:
    from meshfold.mesh.config import load_settings

    objects = chart.render(SETS[name])
    file = tmp_path / "meshfold.toml"
    file.write_text(objects["ConfigMap", f"{RELEASE}-meshfold-config"]["data"]["meshfold.toml"])
    for spec in node_pods(objects):
        environ = {one["name"]: one.get("value", "elsewhere") for one in spec["containers"][0]["env"]}
        found = load_settings(file, environ=environ)
        assert found.dir == "/var/lib/meshfold/node"
        assert found.health_listen == "0.0.0.0:8080"
        assert found.log_format == "json"


def test_an_installed_broker_takes_the_token_that_the_nodes_have(chart: ChartCopy) -> None:
    values = {
        "broker": {"url": "", "auth": {"existingSecret": "meshfold-broker"}},
        "nats": {"enabled": True},
    }
    objects = chart.render(values)
    handed = json.loads(objects["ConfigMap", f"{RELEASE}-nats"]["data"]["values"])
    reference = handed["container"]["env"]["MESHFOLD_BROKER_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert handed["config"]["merge"]["authorization"]["token"] == "<< $MESHFOLD_BROKER_TOKEN >>"
    spec = objects["StatefulSet", VOTERS]["spec"]["template"]["spec"]
    (broker,) = (volume["secret"] for volume in spec["volumes"] if volume["name"] == "broker")
    assert broker["secretName"] == reference["name"]
    env = {one["name"]: one.get("value") for one in spec["containers"][0]["env"]}
    assert env["MESHFOLD_TOKEN_FILE"] == f"/etc/meshfold/broker/{reference['key']}"
    assert env["MESHFOLD_NATS"] == f"nats://{RELEASE}-nats:4222"


@pytest.mark.parametrize(
    ("method", "variables"),
    [
        ("mesh", set()),
        ("creds", {"MESHFOLD_CREDS"}),
        ("token", {"MESHFOLD_TOKEN_FILE"}),
        ("nkey", {"MESHFOLD_NKEY"}),
        ("user", {"NATS_USER", "MESHFOLD_PASSWORD_FILE"}),
    ],
)
def test_each_login_reaches_the_node_and_no_other_does(
    chart: ChartCopy, method: str, variables: set[str]
) -> None:
    objects = chart.render({"broker": {"auth": {"method": method}}})
    (node,) = objects["StatefulSet", VOTERS]["spec"]["template"]["spec"]["containers"]
    logins = {"MESHFOLD_CREDS", "MESHFOLD_TOKEN_FILE", "MESHFOLD_NKEY", "NATS_USER", "MESHFOLD_PASSWORD_FILE"}
    env = {one["name"]: one for one in node["env"]}
    assert logins & set(env) == variables
    mounted = {mount["name"]: mount["mountPath"] for mount in node["volumeMounts"]}
    assert ("broker" in mounted) == bool(variables)
    for name in variables - {"NATS_USER"}:
        assert Path(env[name]["value"]).parent.as_posix() == mounted["broker"]


def test_the_notes_say_what_to_do_next_and_what_is_weak(chart: ChartCopy) -> None:
    notes = chart.notes(FULL)
    assert f"helm test {RELEASE} --namespace plant" in notes
    assert "meshfold invite NAME" in notes
    assert "one voter today" in notes
    mesh_logins = {"broker": {"auth": {"method": "mesh"}}}
    assert "nats-server.conf" in chart.notes(mesh_logins)
    assert "WARNING" not in chart.notes(mesh_logins)
    assert "dev.enabled is set" in chart.notes(SETS["trying things"])
    assert "every pod of the cluster" in chart.notes({"networkPolicy": {"enabled": False}})


names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
# "=" and "<<" mean something in YAML 1.1, which this test reads and Kubernetes does not.
words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12).filter(
    lambda word: word not in ("=", "<<")
)
drawn = st.fixed_dictionaries(
    {},
    optional={
        "nameOverride": names,
        "fullnameOverride": names,
        "commonLabels": st.dictionaries(names, names, max_size=2),
        "mesh": st.fixed_dictionaries({"name": names}),
        "voters": st.fixed_dictionaries(
            {
                "replicas": st.sampled_from([1, 3, 5, 7]),
                "joinTokens": st.fixed_dictionaries({"existingSecret": names}),
                "read": st.lists(words.filter(bool), max_size=2),
                "antiAffinity": st.sampled_from(["soft", "hard"]),
                "podAnnotations": st.dictionaries(names, words, max_size=2),
            }
        ),
        "workers": st.fixed_dictionaries(
            {
                "enabled": st.booleans(),
                "replicas": st.integers(0, 9),
                "joinToken": st.fixed_dictionaries({"existingSecret": names}),
                "autoscaling": st.fixed_dictionaries({"enabled": st.booleans()}),
            }
        ),
        "broker": st.fixed_dictionaries(
            {
                "auth": st.fixed_dictionaries(
                    {"method": st.sampled_from(["mesh", "creds", "token", "user", "nkey"])}
                )
            }
        ),
        "health": st.fixed_dictionaries({"port": st.integers(1024, 65535)}),
        "podDisruptionBudget": st.fixed_dictionaries({"enabled": st.booleans()}),
        "serviceAccount": st.fixed_dictionaries({"create": st.booleans(), "name": names}),
        "extraEnv": st.lists(st.fixed_dictionaries({"name": st.just("NOTE"), "value": words}), max_size=1),
    },
)


# Not shrunk: an example takes a tenth of a second, and a failure names its values as they are.
@settings(max_examples=40, deadline=None, phases=(Phase.reuse, Phase.generate))
@given(values=drawn)
def test_whatever_the_schema_takes_renders_to_valid_objects(chart: ChartCopy, values: dict[str, Any]) -> None:
    check(chart.render(values))
