"""The explorer: a model's latent space in a browser.

`server` listens, `guard` decides which requests it answers, `app` maps addresses to functions, `views` and `jobs`
compute what the page shows, one at a time (`turns`), and `folder` is all that the page can reach of the file system.
The page itself is plain HTML, CSS and JavaScript in `page/`.
"""
