"""Share links to files: make, list and revoke them. ``downloads`` answers requests for the addresses of links."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from storage.api import cursors, serializers
from storage.api.endpoint import Endpoint, owner_of, well_formed
from storage.api.names import FIELD as FILE_NAME
from storage.api.names import chosen_name
from storage.api.paging import LIMIT, address_of_next, limit_of
from storage.api.schema import answers, examples
from storage.api.schema.operations import Reply, describe
from storage.api.uploads.bodies import FieldsParser, FormParser, JSONParser
from storage.api.wsgi.transfers import transfer
from storage.models import File, Link
from storage.services import catalogue, share


class LinksView(Endpoint):
    """The share links to a file. A `POST` makes a link: whoever has the address of the link may download the file
    without a key.

    `expires_in` is the time in seconds after which the link expires: 604800, seven days, if you do not say. The link is
    for the newest name of the bytes, or for the name that `?file_name=` chooses.
    """

    parameters = (FILE_NAME,)
    parser_classes = (JSONParser, FormParser, FieldsParser)

    def get_serializer(self, *args: Any, **kwargs: Any) -> serializers.LinkSerializer:
        return serializers.LinkSerializer(*args, **kwargs)

    @describe("List share links", {200: Reply("the links", answers.ShareLinks)}, problems=("no_such_file",))
    def get(self, request: Request, file_hash: str) -> Response:
        links = share.links_to(_files(request, file_hash))
        return Response({"links": [_document(request, link) for link in links]})

    @describe(
        "Make a share link",
        {201: Reply("the link", answers.ShareLink, example=examples.SHARE_LINK)},
        problems=("no_such_file", "content_not_ready", "too_many_links", "too_many_transfers"),
    )
    @transfer()
    def post(self, request: Request, file_hash: str) -> Response:
        file = catalogue.find(owner_of(request), well_formed(file_hash), chosen_name(request.META))
        form = self.get_serializer(data=request.data)
        form.is_valid(raise_exception=True)
        link = share.share(file, form.validated_data["expires_in"])
        return Response(_document(request, link), status.HTTP_201_CREATED)


class LinkView(Endpoint):
    """One share link. A `DELETE` revokes it: its address opens nothing any more."""

    http_method_names = ("delete", "options")
    done = "The link is revoked."

    @describe("Revoke a share link", {204: Reply("revoked")}, problems=("no_such_file", "no_such_link"))
    def delete(self, request: Request, file_hash: str, link_id: str) -> Response:
        share.revoke(link_id, owner=owner_of(request), files=_files(request, file_hash))
        return Response(status=status.HTTP_204_NO_CONTENT)


class OwnLinksView(Endpoint):
    """The share links to all your files that have not expired, the newest first, page by page.

    `limit` is the size of a page (1000). The address in `next` has the next `cursor`.
    """

    parameters = (LIMIT, cursors.FIELD)

    @describe("List all share links", {200: Reply("a page of links", answers.OwnLinks, example=examples.OWN_LINKS)})
    def get(self, request: Request) -> Response:
        limit = limit_of(request)
        cursor = request.query_params.get(cursors.FIELD)
        after = None if cursor is None else cursors.read_moment(cursor)
        found = share.links_of(owner_of(request), limit=limit + 1, after=after)
        following = None
        if len(found) > limit:
            last = found[limit - 1]
            following = address_of_next(request, cursors.made_of_moment(last.created_at, last.pk))
        links = [{**_document(request, link), "file_hash": link.file.content.file_hash} for link in found[:limit]]
        return Response({"links": links, "next": following})


class OwnLinkView(Endpoint):
    """One share link to a file of yours. A `DELETE` revokes it: its address opens nothing any more."""

    http_method_names = ("delete", "options")
    done = "The link is revoked."

    @describe("Revoke one of all share links", {204: Reply("revoked")}, problems=("no_such_link",))
    def delete(self, request: Request, link_id: str) -> Response:
        share.revoke(link_id, owner=owner_of(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


def _files(request: Request, file_hash: str) -> list[File]:
    return catalogue.find_all(owner_of(request), well_formed(file_hash), chosen_name(request.META), ready=False)


def _document(request: Request, link: Link) -> dict[str, Any]:
    path = f"/share/{share.token_of(link)}/{quote(link.file.name)}"
    return {
        "id": str(link.pk),
        "url": request.build_absolute_uri(request.META.get("SCRIPT_NAME", "") + path),
        "file_name": link.file.name,
        "created_at": link.created_at,
        "expires_at": link.expires_at,
    }
