"""The description of the API in OpenAPI: ``/schema`` has the document, and ``/docs`` shows it.

``describe`` says on a view's method what the method answers. drf-spectacular and ``operations`` make the rest.
"""
