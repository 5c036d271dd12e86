"""Runs on Azure Machine Learning: one description of a job, which both of Azure's SDKs send, or a laptop rehearses.

`job.py` says what to run, `sweep.py` and `pipeline.py` how it is repeated and chained; `sdk_v2.py` and `sdk_v1.py` turn
it into what each SDK sends, `submission.py` sends it; `rehearse.py` runs it here as Azure would, and `run_context.py`
is the job's own view of Azure. The SDKs are imported when they are used, so that none is needed to read a job.
"""
