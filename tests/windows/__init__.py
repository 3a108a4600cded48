"""What is particular to Windows.

``native`` runs inside a Windows Python (on Windows, or under Wine); ``wine`` runs on Linux against
servers and command lines in the Windows Python of ``.venv-windows``. ``make test-windows`` runs both.
"""
