"""Pods on Docker or as local processes, behind one interface."""
