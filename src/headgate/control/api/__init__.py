"""The admin API: /admin/v1 on the control port, for the operator alone.

``nouns`` has a module per noun; ``app.py`` builds the application, ``door.py`` says who comes in, ``errors.py`` how it
says no, ``routers.py`` what every route has.  Refuses to change what the configuration file declares, and query
parameters and fields that it does not know.  Imports nothing itself: control's process knows ``parts.py`` before
FastAPI is there.
"""
