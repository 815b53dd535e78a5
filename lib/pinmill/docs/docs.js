// Shows openapi.json; a token that is typed in stays in this page's memory only.
window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#page",
  deepLinking: true,
  displayRequestDuration: true,
  persistAuthorization: false,
  validatorUrl: null,
  onComplete: () => {
    document.title = window.ui.specSelectors.info().get("title");
  },
});
