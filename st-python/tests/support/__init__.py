"""What several suites are driven by: other processes, and catalogues of faults."""
