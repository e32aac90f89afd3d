"use strict";

// Swagger UI shows the schema. The Authorize dialogue keeps a key in this page only: it is gone when the page is closed.
SwaggerUIBundle({
  url: document.getElementById("docs").dataset.schema,
  domNode: document.getElementById("docs"),
  deepLinking: true,
  displayRequestDuration: true,
  validatorUrl: null,
});
