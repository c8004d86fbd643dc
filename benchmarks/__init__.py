"""Speed of the engine against its peers: `python benchmarks/run.py`."""
