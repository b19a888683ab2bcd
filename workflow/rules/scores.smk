"""Score the videos.

in:  results/<scale>/rollouts/, data/<scale>/clips/ (the truth)
out: results/<scale>/scores/<variant>/seed<k>/<protocol>.json
"""


rule score_videos:
    input:
        clips=lambda w: clips(PROTOCOLS[w.protocol].split),
        record=f"{RESULTS}/rollouts/{{variant}}/seed{{seed}}/{{protocol}}/rollout.json",
        rgb=f"{RESULTS}/rollouts/{{variant}}/seed{{seed}}/{{protocol}}/rgb.npy",
    output:
        scores=f"{RESULTS}/scores/{{variant}}/seed{{seed}}/{{protocol}}.json",
    log:
        f"logs/score_videos/{SCALE}/{{variant}}/seed{{seed}}/{{protocol}}.log",
    benchmark:
        f"benchmarks/jobs/score_videos/{SCALE}/{{variant}}/seed{{seed}}/{{protocol}}.tsv"
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
        settings=lambda w: digest(CONFIG.scores_settings(w.protocol)),
        clips=lambda w, input: split_folder(input.clips),
        rollout=subpath(input.record, parent=True),
    shell:
        "python -m geomem.scores score {output.scores:q} {params.job} --threads {threads}"
        " --expect {params.settings} --protocol {wildcards.protocol}"
        " --rollout {params.rollout:q} --clips {params.clips:q} > {log:q} 2>&1"
