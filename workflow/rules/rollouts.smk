"""Generate the long videos.

in:  results/<scale>/checkpoints/, data/<scale>/clips/, the teacher and its basis
out: results/<scale>/rollouts/<variant>/seed<k>/<protocol>/
"""


rule generate_videos:
    input:
        unpack(rollout_inputs),
    output:
        rgb=f"{RESULTS}/rollouts/{{variant}}/seed{{seed}}/{{protocol}}/rgb.npy",
        record=f"{RESULTS}/rollouts/{{variant}}/seed{{seed}}/{{protocol}}/rollout.json",
    log:
        f"logs/generate_videos/{SCALE}/{{variant}}/seed{{seed}}/{{protocol}}.log",
    benchmark:
        f"benchmarks/jobs/generate_videos/{SCALE}/{{variant}}/seed{{seed}}/{{protocol}}.tsv"
    conda:
        ENVIRONMENT
    threads: asks("rollouts").threads
    resources:
        **request("rollouts"),
    params:
        job=JOB,
        version=stage_version("rollouts"),
        settings=lambda w: digest(CONFIG.rollout_settings(w.variant, w.protocol)),
        folder=subpath(output.record, parent=True),
        inputs=rollout_flags,
    shell:
        "python -m geomem.rollouts generate {params.folder:q} {params.job} --threads {threads}"
        " --expect {params.settings} --variant {wildcards.variant} --seed {wildcards.seed}"
        " --protocol {wildcards.protocol}"
        " {params.inputs} > {log:q} 2>&1"
