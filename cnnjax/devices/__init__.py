"""Devices, processes and signals: where a program runs and how it ends."""
