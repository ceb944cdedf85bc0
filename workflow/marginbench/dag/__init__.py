"""From study files to the DAG: read and checked, then which runs there are, their files and narrow parameters."""
