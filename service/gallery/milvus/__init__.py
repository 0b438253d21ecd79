"""The gallery that lives in Milvus: one machine's file (Milvus Lite), a server, or a cluster."""
