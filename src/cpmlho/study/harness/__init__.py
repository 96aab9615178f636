"""Runs a method: it evaluates, keeps the checkpoint and writes the files."""
