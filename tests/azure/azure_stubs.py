"""Workspaces that keep what is sent to them: stubs of the SDKs' clients, with the SDKs' own objects for the rest."""

import dataclasses
from types import SimpleNamespace
from typing import Any

from tf_bert import cli

CLUSTERS = (  # name, size, spot, most machines
    ("cpu-cluster", "Standard_D16s_v5", False, 8),
    ("gpu-cluster", "STANDARD_NC96ADS_A100_V4", False, 16),
    ("gpu-cluster-small", "Standard_NC24ads_A100_v4", False, 4),
    ("gpu-spot", "Standard_NC96ads_A100_v4", True, 16),
)
DATASTORES = ("workspaceblobstore", "bert")


def azure(*words: object) -> int:
    """Runs a command of `tf-bert azure`; returns its exit code."""
    return cli.main(["azure", *map(str, words)])


class StubMlClient:
    """In the place of `azure.ai.ml.MLClient`; `error` is raised in the place of an answer, if it is set."""

    workspace_name = "space"

    def __init__(self, tracking_uri: str = "") -> None:
        from azure.ai.ml.entities import AmlCompute, AzureBlobDatastore, ComputeInstance

        self.sent: list[Any] = []
        self.called: list[tuple[Any, ...]] = []
        self.error: Exception | None = None
        self.status = "Queued"
        tiers = {False: "Dedicated", True: "low_priority"}
        computes = [
            AmlCompute(name=name, size=size, tier=tiers[is_spot], max_instances=most)
            for name, size, is_spot, most in CLUSTERS
        ]
        stores = [AzureBlobDatastore(name=name, account_name="a", container_name="c") for name in DATASTORES]
        self.compute = SimpleNamespace(list=lambda: [ComputeInstance(name="my-laptop"), *computes])
        self.datastores = SimpleNamespace(list=lambda: stores)
        self.workspaces = SimpleNamespace(get=lambda name: SimpleNamespace(mlflow_tracking_uri=tracking_uri))
        self.jobs = SimpleNamespace(
            create_or_update=self._send,
            list=lambda parent_job_name=None: self._listed(parent_job_name),
            get=self._get,
            stream=lambda name: self.called.append(("stream", name)),
            download=lambda name, **how: self.called.append(("download", name, how)),
            begin_cancel=lambda name: SimpleNamespace(wait=lambda: self.called.append(("cancel", name))),
        )
        self.models = SimpleNamespace(create_or_update=self._register)
        self.online_endpoints = SimpleNamespace(begin_create_or_update=self._endpoint)
        self.online_deployments = SimpleNamespace(begin_create_or_update=self._endpoint)
        self.children: dict[str, list[Any]] = {}

    def _send(self, job: Any) -> Any:
        if self.error is not None:
            raise self.error
        job.name = f"run_{len(self.sent)}"
        self.sent.append(job)
        return self._answer(job)

    def _answer(self, job: Any) -> Any:
        url = f"https://ml.azure.com/runs/{job.name}"
        return SimpleNamespace(
            name=job.name, status=self.status, studio_url=url, tags=job.tags, experiment_name=job.experiment_name
        )

    def _listed(self, parent: str | None) -> list[Any]:
        return self.children[parent] if parent else [self._answer(job) for job in reversed(self.sent)]

    def _get(self, name: str) -> Any:
        from azure.core.exceptions import ResourceNotFoundError

        found = next((job for job in self.sent if job.name == name), None)
        if found is None:
            raise ResourceNotFoundError(f"(UserError) Job {name} was not found.\nCode: UserError")
        return self._answer(found)

    def _register(self, model: Any) -> Any:
        model.version = str(1 + len(self.called))
        self.called.append(("register", model))
        return model

    def _endpoint(self, entity: Any) -> Any:
        self.called.append((type(entity).__name__, entity, dict(getattr(entity, "traffic", None) or {})))
        return SimpleNamespace(result=lambda: SimpleNamespace(scoring_uri="https://sst2.example.org/score"))


@dataclasses.dataclass
class StubRun:
    """In the place of `azureml.core.Run`."""

    id: str
    tags: dict[str, str]
    status: str = "Queued"
    display_name: str = ""
    called: list[Any] = dataclasses.field(default_factory=list)
    children: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def get_status(self) -> str:
        return self.status

    def get_portal_url(self) -> str:
        return f"https://ml.azure.com/runs/{self.id}"

    def wait_for_completion(self, show_output: bool, raise_on_error: bool) -> None:
        self.called.append(("wait", show_output, raise_on_error))

    def cancel(self) -> None:
        self.called.append(("cancel",))

    def download_files(self, output_directory: str) -> None:
        self.called.append(("download", output_directory))

    def get_children_sorted_by_primary_metric(self) -> list[dict[str, Any]]:
        return self.children


class StubWorkspace:
    """In the place of `azureml.core.Workspace`, with the runs that were sent to its experiments."""

    subscription_id, resource_group, name = "sub", "group", "space"

    def __init__(self) -> None:
        self.compute_targets = {
            name: SimpleNamespace(
                type="AmlCompute",
                vm_size=size,
                vm_priority="lowpriority" if is_spot else "dedicated",
                scale_settings=SimpleNamespace(maximum_node_count=most),
            )
            for name, size, is_spot, most in CLUSTERS
        }
        self.compute_targets["my-laptop"] = SimpleNamespace(type="ComputeInstance")
        self.datastores = dict.fromkeys(DATASTORES)
        self.sent: list[Any] = []
        self.runs: list[StubRun] = []
        self.error: Exception | None = None

    def experiment(self, workspace: "StubWorkspace", name: str) -> Any:
        """In the place of `azureml.core.Experiment`."""
        assert workspace is self

        def submit(config: Any, tags: dict[str, str]) -> StubRun:
            if self.error is not None:
                raise self.error
            self.sent.append((name, config))
            self.runs.append(StubRun(f"run_{len(self.runs)}", tags))
            return self.runs[-1]

        def get_runs(tags: dict[str, str]) -> Any:
            pairs = zip(reversed(self.sent), reversed(self.runs), strict=True)
            return (run for (sent, _), run in pairs if sent == name and tags.items() <= run.tags.items())

        return SimpleNamespace(submit=submit, get_runs=get_runs)

    def get_run(self, workspace: "StubWorkspace", name: str) -> StubRun:
        """In the place of `azureml.core.run.Run.get`."""
        return next(run for run in self.runs if run.id == name)
