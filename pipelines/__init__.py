"""CodeDance room: pipelines."""
