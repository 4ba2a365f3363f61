"""CodeDance room: policies."""
