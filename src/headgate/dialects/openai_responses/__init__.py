"""The OpenAI Responses API (platform.openai.com/docs/api-reference/responses; openresponses.org), both sides.

Read ``dialect`` first.  ``request`` reads and writes requests with ``to_chat`` and ``from_chat``; ``source`` reads an
upstream's answer; ``face`` and ``document`` write an answer.
"""
