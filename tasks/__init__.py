"""One Prefect task per stage: read, call the library, write."""
