"""What the rehearsals of the tests run."""

DATASTORE = "azureml://datastores/bert/paths"
# What a rank sees, as a file of the output `run` with the rank's number.
TELL = """\
import json, os, pathlib, sys
rank = os.environ.get("OMPI_COMM_WORLD_RANK", "0")
seen = {"environment": dict(os.environ), "directory": os.getcwd(), "arguments": sys.argv[1:]}
seen["files"] = sorted(str(path) for path in pathlib.Path(".").rglob("*"))
(pathlib.Path(os.environ["AZURE_ML_OUTPUT_run"]) / f"{rank}.json").write_text(json.dumps(seen))
"""
# Counts 20 steps; what it has written to the output survives it, what it has written elsewhere does not.
COUNT = """\
import os, pathlib, time
done = pathlib.Path(os.environ["AZURE_ML_OUTPUT_run"]) / "done"
log = done.with_name("attempts")
log.write_text((log.read_text() if log.exists() else "") + os.getcwd() + "\\n")
assert not pathlib.Path("here").exists()
pathlib.Path("here").touch()
for step in range(int(done.read_text()) + 1 if done.exists() else 1, 21):
    time.sleep(0.05)
    done.write_text(str(step))
    print(f"step {step}/20 | loss 1.0")
"""
