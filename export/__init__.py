"""Networks as ONNX files, or for PyTorch alone; ``python -m pnas_fast.export``.

`pnas_fast.export.exporting.export_model` writes an ONNX file, `pnas_fast.export.sessions.open_session` runs
one; `pnas_fast.export.plain` writes a Python file of plain PyTorch or a program of ``torch.export``. All
need what ``pip install 'pnas_fast[deploy]'`` installs.
"""
