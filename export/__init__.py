"""Networks as ONNX files; ``python -m pnas_fast.export``.

`pnas_fast.export.exporting.export_model` writes one, `pnas_fast.export.sessions.open_session` runs one. Both
need what ``pip install 'pnas_fast[deploy]'`` installs.
"""
