"""The Gemini API (ai.google.dev/api/generate-content), both sides.

Read ``dialect`` first.  ``request`` reads and writes requests with ``to_chat`` and ``from_chat``; ``source`` reads an
upstream's answer; ``face`` writes an answer.
"""
