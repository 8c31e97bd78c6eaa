"""The files in `cluster/`: fields that KubeRay knows, and what they promise each other."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from distforget.placement import Placement

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "cluster" / "kuberay"
CLOSED = {
    "rayjob": "activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint "
    "entrypointNumCpus entrypointNumGpus entrypointResources jobId managedBy metadata "
    "rayClusterSpec runtimeEnvYAML shutdownAfterJobFinishes submissionMode submitterConfig "
    "submitterPodTemplate suspend ttlSecondsAfterFinished",
    "raycluster": "authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions "
    "headGroupSpec headServiceAnnotations managedBy rayVersion suspend upgradeStrategy "
    "workerGroupSpecs",
    "auth": "enableK8sTokenAuth mode secretName",
    "autoscaler": "env envFrom idleTimeoutSeconds image imagePullPolicy resources securityContext "
    "upscalingMode version volumeMounts",
    "gcs": "externalStorageNamespace redisAddress redisPassword redisUsername",
    "head": "enableIngress headService labels rayStartParams resources serviceType template",
    "worker": "groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts "
    "rayStartParams replicas resources scaleStrategy suspend template",
    "pod": "automountServiceAccountToken containers nodeSelector priorityClassName securityContext "
    "serviceAccountName tolerations volumes",
    "container": "args command env envFrom image name resources securityContext volumeMounts",
}
"""Fields of ray.io/v1 (KubeRay 1.6) that an object may have, and those of pods used here: a server
drops or refuses all others."""


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((KUBERAY / name).read_text("utf-8")))


def cluster(name: str) -> dict[str, Any]:
    (whole,) = documents(name)
    spec: dict[str, Any] = whole["spec"]
    return spec.get("rayClusterSpec", spec)


def unknown(given: dict[str, Any], kind: str) -> set[str]:
    return set(given) - set(CLOSED[kind].split())


def pods(name: str) -> list[dict[str, Any]]:
    spec = cluster(name)
    return [
        group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])
    ]


def wrong_fields(spec: dict[str, Any]) -> set[str]:
    found = unknown(spec, "raycluster") | unknown(spec["authOptions"], "auth")
    found |= unknown(spec.get("autoscalerOptions", {}), "autoscaler")
    found |= unknown(spec.get("gcsFaultToleranceOptions", {}), "gcs")
    found |= unknown(spec["headGroupSpec"], "head")
    for group in spec["workerGroupSpecs"]:
        found |= unknown(group, "worker")
    return found


BOTH = pytest.mark.parametrize("name", ["rayjob.yaml", "raycluster.yaml"])


@BOTH
def test_all_fields_are_known(name: str) -> None:
    (whole,) = documents(name)
    assert whole["apiVersion"] == "ray.io/v1"
    if whole["kind"] == "RayJob":
        assert unknown(whole["spec"], "rayjob") == set()
    assert wrong_fields(cluster(name)) == set()
    for pod in pods(name):
        assert unknown(pod, "pod") == set()
        assert [unknown(c, "container") for c in pod["containers"]] == [set()]


def test_a_misspelt_field_is_found() -> None:
    spec = cluster("raycluster.yaml")
    spec["workerGroupSpecs"][0]["minReplica"] = 1
    assert wrong_fields({**spec, "autoScalerOptions": {}}) == {"minReplica", "autoScalerOptions"}


@BOTH
def test_pods_run_the_pinned_ray_in_one_image_and_hold_what_they_ask_for(name: str) -> None:
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    assert cluster(name)["rayVersion"] == pinned[1]
    containers = [container for pod in pods(name) for container in pod["containers"]]
    assert len({container["image"] for container in containers}) == 1
    for container in containers:
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
    for group in cluster(name)["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@BOTH
def test_pods_have_the_priority_and_the_volume_that_are_made_first(name: str) -> None:
    made = {(d["kind"], d["metadata"]["name"]) for d in documents("store.yaml")}
    for pod in pods(name):
        claims = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"]]
        assert {("PersistentVolumeClaim", claim) for claim in claims} <= made
    assert ("PriorityClass", pods(name)[0]["priorityClassName"]) in made
    assert len({pod["priorityClassName"] for pod in pods(name)}) == 1


@BOTH
def test_an_autoscaler_has_the_token_that_it_needs_and_nobody_else_has_one(name: str) -> None:
    head, *workers = pods(name)
    scales = cluster(name).get("enableInTreeAutoscaling", False)
    assert head.get("automountServiceAccountToken", True) == scales
    assert not any(pod.get("automountServiceAccountToken", True) for pod in workers)


def test_the_job_keeps_to_the_rules_of_kueue() -> None:
    (job,) = documents("rayjob.yaml")
    assert "kueue.x-k8s.io/queue-name" in job["metadata"]["labels"]
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert "clusterSelector" not in job["spec"]
    spec = job["spec"]["rayClusterSpec"]
    assert not spec.get("enableInTreeAutoscaling")
    assert len(spec["workerGroupSpecs"]) <= 7


def test_the_jobs_command_has_options_that_there_are() -> None:
    (job,) = documents("rayjob.yaml")
    program, command, study, *options = shlex.split(job["spec"]["entrypoint"])
    assert (program, command) == ("distforget", "run")
    assert (ROOT / "distforget" / "presets" / f"{study}.yaml").is_file()
    names = [option for option in options if option.startswith("--")]
    assert {name[2:].replace("-", "_") for name in names} <= set(Placement.model_fields)


def test_the_heads_memory_is_the_redis_that_is_made() -> None:
    service, redis = documents("redis.yaml")
    host, port = cluster("raycluster.yaml")["gcsFaultToleranceOptions"]["redisAddress"].split(":")
    assert host == service["metadata"]["name"]
    assert int(port) == service["spec"]["ports"][0]["port"]
    pod = redis["spec"]["template"]
    assert service["spec"]["selector"] == pod["metadata"]["labels"]
    given = pod["spec"]["containers"][0]["env"][0]["valueFrom"]
    asked = cluster("raycluster.yaml")["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"]
    assert given == asked
