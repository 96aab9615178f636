"""The replication: configuration, data, runs, tracking and the report, around `cpmlho.core`."""
