"""HTTP layer: endpoints, request and response schemas, errors, access guards."""
