"""What people and programs talk to: the blind voting page, chat and the API.

Knows nothing of the command line.
"""
