"""One workload a file: `run(bench)` builds its sides, times them interleaved and adds rows to the table."""
