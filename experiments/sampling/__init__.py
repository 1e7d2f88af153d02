"""In: a run (`experiments.setup.runs.Run`). Out: its folder with one PNG per prompt and a manifest, resumable at any
moment and safe to fill from several processes.
"""
