"""Lung opacity classification on chest radiographs: everything but the orchestration."""
