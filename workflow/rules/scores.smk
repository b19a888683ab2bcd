"""Score the videos, and analyse what features know of space.

in:  results/<scale>/rollouts/, checkpoints/, data/<scale>/clips/ (the truth), the teacher's weights
out: results/<scale>/scores/<variant>/seed<k>/<protocol>/<family>.json
     results/<scale>/sanity/<family>.json: what a table's metrics say of truth and of noise
     results/<scale>/calibration.json: what the VGGT score's evidence is worth, by clips with depth
     results/<scale>/content_bias.json, consistency.json; by name alone cache_fidelity.json
     results/<scale>/analysis/teacher.{json,safetensors}, <variant>/seed<k>.{json,safetensors}
"""


rule score_videos:
    input:
        unpack(job_inputs(scores_job)),
    output:
        scores=str(LAYOUT.scores("{variant}", "{seed}", "{protocol}", "{family}")),
    log:
        f"logs/score_videos/{SCALE}/{{variant}}/seed{{seed}}/{{protocol}}/{{family}}.log",
    conda:
        ENVIRONMENT
    threads: asks("scores").threads
    resources:
        **request("scores", lambda w: w.family),
    params:
        job=JOB,
        version=stage_version("scores"),
        settings=job_settings(scores_job),
        inputs=job_options(scores_job),
    shell:
        "python -m geomem.launch {log:q}"
        " python -m geomem.scores score {output.scores:q} {params.job} --threads {threads}"
        " --expect {params.settings} --protocol {wildcards.protocol} --family {wildcards.family}"
        " {params.inputs}"


rule calibrate_vggt_score:
    input:
        unpack(job_inputs(calibration_job)),
    output:
        record=str(LAYOUT.calibration),
    log:
        f"logs/calibrate_vggt_score/{SCALE}.log",
    conda:
        ENVIRONMENT
    threads: asks("scores", "calibrate").threads
    resources:
        **request("scores", "calibrate"),
    params:
        job=JOB,
        version=stage_version("scores"),
        settings=job_settings(calibration_job),
        inputs=job_options(calibration_job),
    shell:
        "python -m geomem.launch {log:q}"
        " python -m geomem.scores calibrate {output.record:q} {params.job} --threads {threads}"
        " --expect {params.settings} {params.inputs}"


rule analyse_teacher:
    input:
        unpack(job_inputs(analysis_job)),
    output:
        record=str(LAYOUT.analysis(None, 0)),
        clouds=str(LAYOUT.clouds(None, 0)),
    log:
        f"logs/analyse_teacher/{SCALE}.log",
    conda:
        ENVIRONMENT
    threads: asks("scores", "analyse").threads
    resources:
        **request("scores", "analyse"),
    params:
        job=JOB,
        version=stage_version("scores"),
        settings=job_settings(analysis_job),
        inputs=job_options(analysis_job),
    shell:
        "python -m geomem.launch {log:q}"
        " python -m geomem.scores analyse {output.record:q} {params.job} --threads {threads}"
        " --expect {params.settings} --clouds {output.clouds:q} {params.inputs}"


rule analyse_variant:
    input:
        unpack(job_inputs(analysis_job)),
    output:
        record=str(LAYOUT.analysis("{variant}", "{seed}")),
        clouds=str(LAYOUT.clouds("{variant}", "{seed}")),
    log:
        f"logs/analyse_variant/{SCALE}/{{variant}}/seed{{seed}}.log",
    conda:
        ENVIRONMENT
    threads: asks("scores", "analyse").threads
    resources:
        **request("scores", "analyse"),
    params:
        job=JOB,
        version=stage_version("scores"),
        settings=job_settings(analysis_job),
        inputs=job_options(analysis_job),
    shell:
        "python -m geomem.launch {log:q}"
        " python -m geomem.scores analyse {output.record:q} {params.job} --threads {threads}"
        " --expect {params.settings} --clouds {output.clouds:q} --variant {wildcards.variant}"
        " {params.inputs}"


if CONFIG.sanity:

    rule check_sanity:
        input:
            unpack(job_inputs(sanity_job)),
        output:
            record=str(LAYOUT.sanity("{family}")),
        log:
            f"logs/check_sanity/{SCALE}/{{family}}.log",
        conda:
            ENVIRONMENT
        threads: asks("scores").threads
        resources:
            **request("scores", lambda w: w.family),
        params:
            job=JOB,
            version=stage_version("scores"),
            settings=job_settings(sanity_job),
            inputs=job_options(sanity_job),
        shell:
            "python -m geomem.launch {log:q}"
            " python -m geomem.scores sanity {output.record:q} {params.job} --threads {threads}"
            " --expect {params.settings} --family {wildcards.family} {params.inputs}"


if CONFIG.content_bias:

    rule measure_content_bias:
        input:
            unpack(job_inputs(content_bias_job)),
        output:
            record=str(LAYOUT.content_bias),
        log:
            f"logs/measure_content_bias/{SCALE}.log",
        conda:
            ENVIRONMENT
        threads: asks("scores", "content_bias").threads
        resources:
            **request("scores", "content_bias"),
        params:
            job=JOB,
            version=stage_version("scores"),
            settings=job_settings(content_bias_job),
            inputs=job_options(content_bias_job),
        shell:
            "python -m geomem.launch {log:q}"
            " python -m geomem.scores content-bias {output.record:q} {params.job}"
            " --threads {threads} --expect {params.settings} {params.inputs}"


if CONFIG.consistency:

    rule measure_consistency:
        input:
            unpack(job_inputs(consistency_job)),
        output:
            record=str(LAYOUT.consistency),
        log:
            f"logs/measure_consistency/{SCALE}.log",
        conda:
            ENVIRONMENT
        threads: asks("scores", "consistency").threads
        resources:
            **request("scores", "consistency"),
        params:
            job=JOB,
            version=stage_version("scores"),
            settings=job_settings(consistency_job),
            inputs=job_options(consistency_job),
        shell:
            "python -m geomem.launch {log:q}"
            " python -m geomem.scores consistency {output.record:q} {params.job}"
            " --threads {threads} --expect {params.settings} {params.inputs}"


if SETTINGS.cache_fidelity:

    rule measure_cache_fidelity:
        input:
            unpack(job_inputs(cache_fidelity_job)),
        output:
            record=str(LAYOUT.cache_fidelity),
        log:
            f"logs/measure_cache_fidelity/{SCALE}.log",
        conda:
            ENVIRONMENT
        threads: asks("scores", "cache_fidelity").threads
        resources:
            **request("scores", "cache_fidelity"),
        params:
            job=JOB,
            version=stage_version("scores"),
            settings=job_settings(cache_fidelity_job),
            inputs=job_options(cache_fidelity_job),
        shell:
            "python -m geomem.launch {log:q}"
            " python -m geomem.scores cache-fidelity {output.record:q} {params.job}"
            " --threads {threads} --expect {params.settings} {params.inputs}"
