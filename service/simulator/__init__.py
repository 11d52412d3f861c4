"""The fake providers: they know HTTP and nothing of the service, and nothing of the service knows them.

`app.create_app` builds the ASGI application, `app.running` serves it inside another program's event loop and
`app.run` serves it until a signal. One folder per provider; `app.PROVIDERS` is the one list of them.
"""
