"""A tour of the session API in notebook cells. `test_notebook.py` runs it in an empty folder."""

# %% Open a model: the newest in ./runs, else the bundled one; or pass a path.
import stylegan_cli

session = stylegan_cli.open()
print(session.path.name, session.fingerprint, session.info.kimg, "kimg")

# %% Generate images from seeds, as a tensor and as files.
result = session.generate(seeds=[1, 2, 3], trunc=0.7)
print(result.images.shape, result.ws.shape)
print(result.save("images", latents=True))

# %% Mix the styles of images.
mixed = session.mix(rows=[1], cols=[2, 3], styles="coarse")
print(mixed.images.shape, mixed.styles)
mixed.save("mixed")


# %% Find the latents that reproduce an image. Long work reports its progress.
def show(what, done, total):
    if done == total:
        print(what, "done")


projection = session.project(images=["images/seed0001.png"], loss="pixel", steps=5, candidates=4, progress=show)
print(projection.names, projection.distance, projection.psnr)
projection.save("projection")

# %% Find directions, and edit the projected image along one.
directions = session.find_directions(method="sefa", count=2, num=50)
edited = session.edit(directions=directions, direction=["sefa0"], strength=[2.0], seeds=["projection/projected.npz"])
print(edited.save("edited"))

# %% Render a video.
video = session.interpolate(seeds=[1, 2], frames=3)
print(video.images.shape, video.save("video.gif"))

# %% The metadata of an image, and the generator itself.
print(result.metadata[0])
images = session.G.synthesis(session.G.mapping(session.G.mapping.w_avg.new_zeros(1, session.G.config.z_dim)))
print(images.shape)
