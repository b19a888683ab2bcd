"""Score the videos: all protocols of a variant and seed in one job.

in:  results/<scale>/rollouts/, data/<scale>/clips/ (the truth)
out: results/<scale>/scores/<variant>/seed<k>/<protocol>.json
"""


rule score_videos:
    input:
        clips=[shard for split in PROTOCOLS.values() for shard in clips(split)],
        rollouts=expand(
            f"{RESULTS}/rollouts/{{{{variant}}}}/seed{{{{seed}}}}/{{protocol}}/rollout.json",
            protocol=PROTOCOLS,
        ),
        rgb=expand(
            f"{RESULTS}/rollouts/{{{{variant}}}}/seed{{{{seed}}}}/{{protocol}}/rgb.npy",
            protocol=PROTOCOLS,
        ),
    output:
        scores=expand(
            f"{RESULTS}/scores/{{{{variant}}}}/seed{{{{seed}}}}/{{protocol}}.json",
            protocol=PROTOCOLS,
        ),
    log:
        f"logs/score_videos/{SCALE}/{{variant}}/seed{{seed}}.log",
    benchmark:
        f"benchmarks/jobs/score_videos/{SCALE}/{{variant}}/seed{{seed}}.tsv"
    conda:
        ENVIRONMENT
    threads: asks("scores").threads
    resources:
        gpu=asks("scores").gpu,
        mem_mb=asks("scores").mem_mb,
        runtime=asks("scores").runtime,  # minutes
    params:
        job=JOB,
        version=stage_version("scores"),
        settings=digest({p: CONFIG.scores_settings(p) for p in PROTOCOLS}),
        protocols=list(PROTOCOLS),
        clips=[clips_folder(split) for split in PROTOCOLS.values()],
        rollouts=lambda w, input: [str(Path(path).parent) for path in input.rollouts],
    shell:
        "python -m geomem.scores score {output.scores:q} {params.job} --threads {threads}"
        " --expect {params.settings} --protocols {params.protocols:q}"
        " --rollouts {params.rollouts:q} --clips {params.clips:q} > {log:q} 2>&1"
