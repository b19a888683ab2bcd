"""Score the videos, and analyse what features know of space.

in:  results/<scale>/rollouts/, checkpoints/, data/<scale>/clips/ (the truth), the teacher's weights
out: results/<scale>/scores/<variant>/seed<k>/<protocol>.json
     results/<scale>/analysis/teacher.{json,safetensors}, <variant>/seed<k>.{json,safetensors}
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
        **request("scores"),
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


rule analyse_teacher:
    input:
        fit=clips(SETTINGS.analysis.fit_split),
        test=clips(SETTINGS.analysis.test_split),
        weights=WEIGHTS,
        basis=rules.fit_basis.output.basis,
    output:
        record=f"{RESULTS}/analysis/teacher.json",
        clouds=f"{RESULTS}/analysis/teacher.safetensors",
    log:
        f"logs/analyse_teacher/{SCALE}.log",
    benchmark:
        f"benchmarks/jobs/analyse_teacher/{SCALE}.tsv"
    conda:
        ENVIRONMENT
    threads: asks("scores", "analyse").threads
    resources:
        gpu=asks("scores", "analyse").gpu,
        mem_mb=asks("scores", "analyse").mem_mb,
        runtime=asks("scores", "analyse").runtime,  # minutes
    params:
        job=JOB,
        version=stage_version("scores"),
        settings=digest(CONFIG.analysis_settings(None)),
        fit=lambda w, input: split_folder(input.fit),
        test=lambda w, input: split_folder(input.test),
    shell:
        "python -m geomem.scores analyse {output.record:q} {params.job} --threads {threads}"
        " --expect {params.settings} --clouds {output.clouds:q}"
        " --fit-clips {params.fit:q} --test-clips {params.test:q}"
        " --weights {input.weights:q} --basis {input.basis:q} > {log:q} 2>&1"


rule analyse_variant:
    input:
        fit=clips(SETTINGS.analysis.fit_split),
        test=clips(SETTINGS.analysis.test_split),
        weights=WEIGHTS,
        basis=rules.fit_basis.output.basis,
        checkpoint=f"{RESULTS}/checkpoints/{{variant}}/seed{{seed}}/checkpoint.json",
    output:
        record=f"{RESULTS}/analysis/{{variant}}/seed{{seed}}.json",
        clouds=f"{RESULTS}/analysis/{{variant}}/seed{{seed}}.safetensors",
    log:
        f"logs/analyse_variant/{SCALE}/{{variant}}/seed{{seed}}.log",
    benchmark:
        f"benchmarks/jobs/analyse_variant/{SCALE}/{{variant}}/seed{{seed}}.tsv"
    conda:
        ENVIRONMENT
    threads: asks("scores", "analyse").threads
    resources:
        gpu=asks("scores", "analyse").gpu,
        mem_mb=asks("scores", "analyse").mem_mb,
        runtime=asks("scores", "analyse").runtime,  # minutes
    params:
        job=JOB,
        version=stage_version("scores"),
        settings=lambda w: digest(CONFIG.analysis_settings(w.variant)),
        fit=lambda w, input: split_folder(input.fit),
        test=lambda w, input: split_folder(input.test),
        checkpoint=subpath(input.checkpoint, parent=True),
    shell:
        "python -m geomem.scores analyse {output.record:q} {params.job} --threads {threads}"
        " --expect {params.settings} --clouds {output.clouds:q}"
        " --fit-clips {params.fit:q} --test-clips {params.test:q}"
        " --weights {input.weights:q} --basis {input.basis:q} --variant {wildcards.variant}"
        " --checkpoint {params.checkpoint:q} > {log:q} 2>&1"
