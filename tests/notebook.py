"""What a notebook does with a model, cell by cell. `test_notebook.py` runs it in an empty folder."""

# %% Open a model: the newest run under ./runs, else the one that comes with the package; or give a path.
import stylegan_cli

session = stylegan_cli.open()
print(session.path.name, session.fingerprint, session.info.kimg, "kimg")

# %% Images of seeds, as a tensor and as files.
drawn = session.generate(seeds=[1, 2, 3], trunc=0.7)
print(drawn.images.shape, drawn.ws.shape)
print(drawn.save("images", latents=True))

# %% The styles of one in another.
mixed = session.mix(rows=[1], cols=[2, 3], styles="coarse")
print(mixed.images.shape, mixed.styles)
mixed.save("mixed")


# %% Find an image in the latent space. Long work says how far it has come.
def show(what, done, total):
    if done == total:
        print(what, "done")


found = session.project(images=["images/seed0001.png"], loss="pixel", steps=5, candidates=4, progress=show)
print(found.names, found.distance, found.psnr)
found.save("found")

# %% Directions, and the image that was found moved along one.
directions = session.find_directions(method="sefa", count=2, num=50)
moved = session.edit(directions=directions, direction=["sefa0"], strength=[2.0], seeds=["found/projected.npz"])
print(moved.save("moved"))

# %% A video.
video = session.interpolate(seeds=[1, 2], frames=3)
print(video.images.shape, video.save("video.gif"))

# %% What images were made with, and the generator itself.
print(drawn.records[0])
images = session.G.synthesis(session.G.mapping(session.G.mapping.w_avg.new_zeros(1, session.G.config.z_dim)))
print(images.shape)
