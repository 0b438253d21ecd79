"""What goes over the wire: request fields and answers. Field names are the API's promise."""
