"""The pages of the review app: they draw what `app.review_state` and the files beside it hold."""
