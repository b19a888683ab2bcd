"""Generate the long videos.

in:  results/<scale>/checkpoints/, data/<scale>/clips/, the teacher and its basis
out: results/<scale>/rollouts/<variant>/seed<k>/<protocol>/
"""


rule generate_videos:
    input:
        unpack(job_inputs(rollout_job)),
    output:
        rgb=str(LAYOUT.rollout("{variant}", "{seed}", "{protocol}") / "rgb.npy"),
        record=str(LAYOUT.rollout_record("{variant}", "{seed}", "{protocol}")),
    log:
        f"logs/generate_videos/{SCALE}/{{variant}}/seed{{seed}}/{{protocol}}.log",
    conda:
        ENVIRONMENT
    threads: asks("rollouts").threads
    resources:
        **request("rollouts"),
    params:
        job=JOB,
        version=stage_version("rollouts"),
        settings=job_settings(rollout_job),
        folder=subpath(output.record, parent=True),
        inputs=job_options(rollout_job),
    shell:
        "python -m geomem.launch {log:q}"
        " python -m geomem.rollouts generate {params.folder:q} {params.job} --threads {threads}"
        " --expect {params.settings} --variant {wildcards.variant} --seed {wildcards.seed}"
        " --protocol {wildcards.protocol}"
        " {params.inputs}"
